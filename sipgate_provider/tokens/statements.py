"""Reads and writes single rows by statements that are compiled once, or are too plain to be compiled.

Django's ORM compiles a statement each time, which takes several times as long as executing it, and a visitor with a
valid token waits for little else.

Must not know: what the columns mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Expression, Field, Model
from django.db.models.functions import Now

from sipgate_provider.tokens import database

Row = TypeVar("Row", bound=Model)
Slot: TypeAlias = "Field[Any, Any] | Sequence[Any]"
Converters = dict[int, tuple[list[Callable[[Any, Any, BaseDatabaseWrapper], Any]], Any]]


class _DatabaseNow(Now):
    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="CLOCK_TIMESTAMP()", **context)


@lru_cache(maxsize=16)
def database_time(later: timedelta | None = None) -> Expression:
    """Return the database's clock at this moment, also within a transaction or behind a statement that had to wait;
    ``later``: so much more."""
    return _DatabaseNow() + later if later else _DatabaseNow()


def get(model: type[Row], pk: int | str, **expressions: Any) -> Row | None:
    """Return the row with this primary key, or None; ``expressions`` are attributes of it, as ``annotate`` makes them.

    An expression must be the same object each time, since the statement is kept for it; so it must in ``update``.
    """
    alias = database.alias()
    connection = connections[alias]
    sql, parameters, names, converters = _select(model, alias, tuple(expressions.items()))
    with connection.cursor() as cursor:
        cursor.execute(sql, (*parameters, pk))
        found = cursor.fetchone()
    if found is None:
        return None
    values = list(found)
    for position, (functions, expression) in converters.items():
        for convert in functions:
            values[position] = convert(values[position], expression, connection)
    row = model.from_db(alias, names, values[: len(names)])
    for name, value in zip(expressions, values[len(names) :], strict=True):
        setattr(row, name, value)
    return row


@lru_cache(maxsize=16)
def _select(
    model: type[Model], alias: str, expressions: tuple[tuple[str, Any], ...]
) -> tuple[str, list[Any], list[str], Converters]:
    rows = model._default_manager.using(alias).filter(pk=0).annotate(**dict(expressions))
    compiler = rows.query.get_compiler(alias)
    sql, (*parameters, _pk) = compiler.as_sql()
    selected = [expression for expression, _sql, _name in compiler.select]
    names = [field.attname for field in model._meta.concrete_fields]
    return sql, parameters, names, compiler.get_converters(selected)


def update(model: type[Model], where: Mapping[str, Any], values: Mapping[str, Any]) -> int:
    """Set columns of the rows that have all values of ``where`` (``…__lte``: at most); return how many there were."""
    alias = database.alias()
    connection = connections[alias]
    statement, slots = _update(
        model,
        alias,
        tuple(
            (name, value if hasattr(value, "resolve_expression") else None)
            for name, value in values.items()
        ),
        tuple((name, value is None) for name, value in where.items()),
    )
    parameters: list[Any] = []
    for slot, value in zip(slots, (*values.values(), *where.values()), strict=True):
        if isinstance(slot, Field):
            parameters.append(slot.get_db_prep_save(value, connection))
        else:
            parameters.extend(slot)
    with transaction.mark_for_rollback_on_error(using=alias), connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)


@lru_cache(maxsize=64)
def _update(
    model: type[Model],
    alias: str,
    values: tuple[tuple[str, Any], ...],
    where: tuple[tuple[str, bool], ...],
) -> tuple[str, list[Slot]]:
    """Return a statement, and for each of its columns the field that prepares a parameter, or parameters that stand."""
    query = model._default_manager.using(alias).query
    compiler, quote = query.get_compiler(alias), connections[alias].ops.quote_name
    slots: list[Slot] = []
    assignments, conditions = [], []
    for name, expression in values:
        field: Any = model._meta.get_field(name)
        sql, slot = "%s", field
        if expression is not None:
            sql, slot = compiler.compile(expression.resolve_expression(query))
        slots.append(slot)
        assignments.append(f"{quote(field.column)} = {sql}")
    for name, is_null in where:
        name, _, comparison = name.partition("__")
        field = model._meta.get_field(name)
        slots.append(() if is_null else field)
        conditions.append(
            f"{quote(field.column)} IS NULL"
            if is_null
            else f"{quote(field.column)} {'<=' if comparison else '='} %s"
        )
    table = quote(model._meta.db_table)
    statement = f"UPDATE {table} SET {', '.join(assignments)} WHERE {' AND '.join(conditions)}"  # noqa: S608  # names of columns only
    return statement, slots
