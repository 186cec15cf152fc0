"""The program `qle cache`: its commands, in the order in which the help lists them."""

from qle.cli.arguments import App
from qle.cli.cache.changing import (
    CONVERT_HELP,
    MERGE_HELP,
    PACK_HELP,
    PRUNE_HELP,
    RELINK_HELP,
    convert,
    merge,
    pack,
    prune,
    relink,
)  # fmt: skip
from qle.cli.cache.exchange import EXPORT_HELP, IMPORT_HELP, export, import_
from qle.cli.cache.looking import INSPECT_HELP, VERIFY_HELP, inspect, verify

cache_app = App(
    help="Look at, check, convert, unite and clean caches of tokens.", no_args_is_help=True, rich_markup_mode="rich"
)
cache_app.command(help=INSPECT_HELP)(inspect)
cache_app.command(help=VERIFY_HELP)(verify)
cache_app.command(help=CONVERT_HELP)(convert)
cache_app.command(help=MERGE_HELP)(merge)
cache_app.command(help=PRUNE_HELP)(prune)
cache_app.command(help=PACK_HELP)(pack)
cache_app.command(help=RELINK_HELP)(relink)
cache_app.command("import", help=IMPORT_HELP)(import_)
cache_app.command(help=EXPORT_HELP)(export)
