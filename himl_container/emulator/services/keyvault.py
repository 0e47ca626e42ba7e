"""Secrets of the workspace, as ``Keyvault`` of the SDK asks for them (the credential service)."""

from __future__ import annotations

import re
from typing import Any

from himl_container.emulator.access import Access
from himl_container.emulator.http import Answer, Refusal, Request, json_answer, not_found
from himl_container.emulator.routes import Route
from himl_container.emulator.state.runs import iso
from himl_container.emulator.state.secrets import Secret, Secrets

_NAME = re.compile(r"[A-Za-z0-9-]{1,127}")
"""learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates#object-identifiers."""

_LARGEST = 25 * 1024
"""Bytes that a secret may have (learn.microsoft.com/azure/key-vault/secrets/about-secrets)."""

_TEST = "tests/emulator/test_keyvault.py::"


class KeyVault:
    """Stores and gives secrets. A job may read them, as ``run.get_secret`` does, and change none."""

    def __init__(self, secrets: Secrets, access: Access) -> None:
        self._secrets, self._access = secrets, access

    def routes(self) -> tuple[Route, ...]:
        """Return what it answers."""
        base, one = "/credential/v2.0/{ws}/secrets", "/credential/v2.0/{ws}/secrets/{name}"
        single, many = f"{_TEST}test_one_secret", f"{_TEST}test_many_secrets"
        return (
            Route("PUT", base, self._put, "KeyVault.Put", single),
            Route("GET", base, self._list, "KeyVault.List", many),
            Route("PUT", f"{base}:putbatch", self._put_many, "KeyVault.PutBatch", many),
            Route("POST", f"{base}:getbatch", self._get_many, "KeyVault.GetBatch", many),
            Route("POST", f"{base}:deletebatch", self._delete_many, "KeyVault.DeleteBatch", many),
            Route("GET", one, self._get, "KeyVault.Get", single),
            Route("DELETE", one, self._delete, "KeyVault.Delete", single),
        )

    def _put(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        return json_answer(_document(self._secrets.put(*_secret(request.document()))))

    def _put_many(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        # All are looked at before the first is stored.
        given = [_secret(item) for item in _items(request)]
        return json_answer({"secrets": [_document(self._secrets.put(*item)) for item in given], "notFoundSecrets": []})

    def _get(self, request: Request) -> Answer:
        found = self._secrets.find(request.params["name"])
        if found is None:
            raise not_found(f"Secret {request.params['name']}")
        return json_answer(_document(found))

    def _get_many(self, request: Request) -> Answer:
        names = [str(item.get("name", "")) for item in _items(request)]
        found = {name: self._secrets.find(name) for name in names}
        secrets = [_document(secret) for secret in found.values() if secret is not None]
        missing = [name for name, secret in found.items() if secret is None]
        return json_answer({"secrets": secrets, "notFoundSecrets": missing})

    def _list(self, request: Request) -> Answer:
        secrets = [{**_document(secret), "value": None} for secret in self._secrets.all()]
        return json_answer({"value": secrets, "continuationToken": None, "nextLink": None})

    def _delete(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        if not self._secrets.remove(request.params["name"]):
            raise not_found(f"Secret {request.params['name']}")
        return json_answer({})

    def _delete_many(self, request: Request) -> Answer:
        self._access.only_user(request.identity)
        for item in _items(request):
            self._secrets.remove(str(item.get("name", "")))
        return json_answer({})


def _items(request: Request) -> list[dict[str, Any]]:
    items = request.document().get("secrets")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Refusal(400, "BadArgument", "'secrets' is not a list of objects.")
    return items


def _secret(item: dict[str, Any]) -> tuple[str, str, str]:
    name, value, content_type = item.get("name"), item.get("value"), item.get("contentType") or ""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Refusal(400, "BadArgument", "A secret's name has 1 to 127 letters, digits and '-'.")
    if not isinstance(value, str) or not isinstance(content_type, str):
        raise Refusal(400, "BadArgument", "A secret's value and content type are texts.")
    if len(value.encode("utf-8", "surrogatepass")) > _LARGEST:
        raise Refusal(400, "BadArgument", f"A secret has at most {_LARGEST} bytes.")
    return name, value, content_type


def _document(secret: Secret) -> dict[str, Any]:
    times = {"createdTime": iso(secret.created), "modifiedTime": iso(secret.modified)}
    return {"name": secret.name, "value": secret.value, "contentType": secret.content_type or None, **times}
