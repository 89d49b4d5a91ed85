"""How a store's rows are named on a Weaviate server that it shares with others."""

import json
import secrets
from pathlib import Path
from uuid import UUID, uuid5

from memr1.bank.mirrored import key_digest
from memr1.errors import BankUnavailable
from memr1.records import write_json

IDENTITY_NAME = "weaviate.json"  # in the store's folder: its own prefix among the tenants of the server
NAMESPACE = UUID("7b0c3f0e-6f1d-5a53-9d0a-3c1b0f6c2e11")  # of the object ids


def read_identity(folder: Path) -> str:
    """The prefix of a store's tenants, made at its first opening. A folder that is copied takes it along."""
    path = folder / IDENTITY_NAME
    try:
        if not path.exists():
            write_json(path, {"store": secrets.token_hex(6)})
        return str(json.loads(path.read_text(encoding="utf-8"))["store"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BankUnavailable(
            f"cannot read or write {path} ({error}): restore it, or delete it to begin anew"
        ) from error


def tenant_name(identity: str, scope: str) -> str:
    """A tenant's name, whatever characters the scope has."""
    return f"{identity}-{key_digest(scope)}"


def object_id(tenant: str, entry_id: str) -> UUID:
    """The same for the same entry, so that writing it twice leaves one."""
    return uuid5(NAMESPACE, f"{tenant}/{entry_id}")
