"""Reads and writes single rows by statements that are compiled once, or are too plain to be compiled.

Django's ORM compiles a statement each time, which takes several times as long as its execution; and one such statement
is nearly all that a visitor with a valid token waits for.

Must not know: what the columns mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.db.models.functions import Now

from sipgate_provider.keeper import database

Row = TypeVar("Row", bound=Model)
Converters = dict[int, tuple[list[Callable[[Any, Any, BaseDatabaseWrapper], Any]], Any]]


class DatabaseNow(Now):
    """The database's clock at this moment, also within a transaction or behind a statement that had to wait."""

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="CLOCK_TIMESTAMP()", **context)


def get(model: type[Row], pk: int | str, *, with_clock: bool = False) -> Row | None:
    """Return the row with this primary key, or None. ``with_clock``: its ``database_now`` is the database's clock."""
    alias = database.alias()
    connection = connections[alias]
    sql, names, converters = _select(model, alias, with_clock)
    with connection.cursor() as cursor:
        cursor.execute(sql, (pk,))
        found = cursor.fetchone()
    if found is None:
        return None
    values = list(found)
    for position, (functions, expression) in converters.items():
        for convert in functions:
            values[position] = convert(values[position], expression, connection)
    row = model.from_db(alias, names, values[: len(names)])
    if with_clock:
        row.database_now = values[-1]  # type: ignore[attr-defined]  # as annotate() would
    return row


@lru_cache(maxsize=16)
def _select(model: type[Model], alias: str, with_clock: bool) -> tuple[str, list[str], Converters]:
    rows = model._default_manager.using(alias).filter(pk=0)
    compiler = (rows.annotate(database_now=DatabaseNow()) if with_clock else rows).query.get_compiler(alias)
    sql, _parameters = compiler.as_sql()
    selected = [expression for expression, _sql, _name in compiler.select]
    return sql, [field.attname for field in model._meta.concrete_fields], compiler.get_converters(selected)


def update(model: type[Model], where: Mapping[str, Any], values: Mapping[str, Any]) -> int:
    """Set columns of the rows that have all values of ``where`` (``…__lte``: at most); return how many there were."""
    alias = database.alias()
    connection = connections[alias]
    parameters: list[Any] = []

    def assignments() -> Iterator[str]:
        for name, value in values.items():
            field: Any = model._meta.get_field(name)
            sql = "%s"
            if hasattr(value, "resolve_expression"):
                query = model._default_manager.using(alias).query
                sql, own = query.get_compiler(alias).compile(value.resolve_expression(query))
                parameters.extend(own)
            else:
                parameters.append(field.get_db_prep_save(value, connection))
            yield f"{connection.ops.quote_name(field.column)} = {sql}"

    def conditions() -> Iterator[str]:
        for name, value in where.items():
            name, _, comparison = name.partition("__")
            field: Any = model._meta.get_field(name)
            column = connection.ops.quote_name(field.column)
            if value is None:
                yield f"{column} IS NULL"
                continue
            parameters.append(field.get_db_prep_save(value, connection))
            yield f"{column} {'<=' if comparison else '='} %s"

    table = connection.ops.quote_name(model._meta.db_table)
    statement = f"UPDATE {table} SET {', '.join(assignments())} WHERE {' AND '.join(conditions())}"  # noqa: S608  # names of columns only
    with transaction.mark_for_rollback_on_error(using=alias), connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)
