"""Answers that evaluations keep, so that a base is asked once and a restart loses nothing."""

from collections.abc import Collection

from sqlalchemy import delete, insert, select

from service.registry.database import Database
from service.registry.tables import evaluation_answers

_KEYS_AT_ONCE = 500
"""Parameters of one query; SQLite accepts some thousands."""


class Answers:
    """The part of the registry that keeps answers. `model` is the revision of a base or the digest of a
    version, `key` tells what was asked and how."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def of(self, model: str, keys: Collection[str]) -> dict[str, str]:
        """What is kept of a model's answers to these questions."""
        wanted, found = list(keys), {}
        async with self._database.read() as connection:
            for begin in range(0, len(wanted), _KEYS_AT_ONCE):
                rows = await connection.execute(
                    select(evaluation_answers.c.key, evaluation_answers.c.body).where(
                        evaluation_answers.c.model == model,
                        evaluation_answers.c.key.in_(wanted[begin : begin + _KEYS_AT_ONCE]),
                    )
                )
                found.update({row.key: row.body for row in rows})
        return found

    async def keep(self, model: str, key: str, body: str) -> None:
        """Keep an answer; the first one stays."""
        async with self._database.write() as connection:
            known = await connection.execute(
                select(evaluation_answers.c.key).where(
                    evaluation_answers.c.model == model, evaluation_answers.c.key == key
                )
            )
            if known.one_or_none() is None:
                await connection.execute(insert(evaluation_answers).values(model=model, key=key, body=body))

    async def forget(self, model: str) -> None:
        """Forget all answers of a model."""
        async with self._database.write() as connection:
            await connection.execute(delete(evaluation_answers).where(evaluation_answers.c.model == model))
