"""`postroad up` with something between it and its services: python -m tests.chaos.site DIR DATABASE_PORT REDIS_PORT.

The processes of the stack reach PostgreSQL and Redis through those ports; what runs behind them is started as always.
"""

import sys
from pathlib import Path

from deploy.identity import Identity
from deploy.up import up


def settings(directory: Path, database_port: int, redis_port: int) -> dict[str, str]:
    identity = Identity.load(directory / "stack.secrets")
    redis = f"redis://:{identity.redis_password}@127.0.0.1:{redis_port}/0"
    return {
        "POSTROAD_DATABASE_URL": f"postgresql://postroad:{identity.database_password}@127.0.0.1:{database_port}/postroad",
        "POSTROAD_REDIS_URL": redis,
        "POSTROAD_BROKER_URL": redis,
    }


def main(directory: Path, database_port: int, redis_port: int) -> int:
    directory.mkdir(parents=True, exist_ok=True)
    between = settings(directory, database_port, redis_port)
    return up(directory, demo=False, once=False, settings=between)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
