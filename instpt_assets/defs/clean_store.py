"""`make clean-store`: remove what killed processes left in the store, and say what it was."""

import argparse
import sys
from datetime import datetime

from instpt_assets.defs.project import Project
from instpt_assets.errors import UserError
from instpt_assets.store.sweeping import sweep


def main() -> None:
    """Sweep the store that the environment names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=7.0, help="what nothing was written to for so long is removed (default: 7)")
    days = parser.parse_args().days
    num = size = 0
    try:
        store = Project.from_environment().store
        for left in sweep(store, days):
            written = datetime.fromtimestamp(left.modified).isoformat(" ", "minutes")
            print(f"removed {left.path} ({left.bytes / 1e6:.1f} MB, last written {written})", flush=True)
            num, size = num + 1, size + left.bytes
    except (UserError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{num} leftovers, {size / 1e6:.1f} MB, removed from {store.url}")


if __name__ == "__main__":
    main()
