"""Frames: tables and columns of pandas, polars and Arrow as arrays of numbers. None of these libraries is imported.

What is not a number is refused by its column, with what makes numbers of it: text, dates, mixed types, and gaps (NaN,
None, NA), which would otherwise become NaN without a word.
"""

import decimal
import numbers
from typing import Any

import numpy as np

from .errors import DataError, KindError


def is_frame(given: Any) -> bool:
    """Whether this is a table, which has columns, or one column, but no array."""
    if isinstance(given, np.ndarray) or not hasattr(given, "__array__"):
        return False
    return hasattr(given, "columns") or hasattr(given, "to_numpy")


def as_numbers(what: str, frame: Any) -> np.ndarray:
    """A table as an array (N, columns) of numbers, a column as (N,); raises if a column has anything else."""
    is_table = hasattr(frame, "columns")
    if not is_table or hasattr(frame, "iloc"):  # polars would make numbers of dates that stand beside others
        array = np.asarray(frame)
        if array.dtype.kind in "iubc" or (array.dtype.kind == "f" and not np.isnan(array).any()):
            return array
    columns = _columns(frame) if is_table else [(getattr(frame, "name", None), frame)]
    found = [(name, *_sorted_out(np.asarray(column), is_table)) for name, column in columns]
    wrong: dict[str, list] = {}
    for name, kind, _ in found:
        if kind != "numbers":
            wrong.setdefault(kind, []).append(name)
    if wrong:
        texts = [_text(kind, what, frame, names if is_table else None) for kind, names in wrong.items()]
        raise (DataError if list(wrong) == ["gaps"] else KindError)(f"{what}: expected numbers, got {'; '.join(texts)}")
    if not is_table:
        return found[0][2]
    return np.stack([values for *_, values in found], axis=1) if found else np.asarray(frame)


def _columns(table) -> list[tuple[Any, Any]]:
    """`(name, column)` of each column. Names in pandas may repeat, so that there the place chooses."""
    if hasattr(table, "iloc"):
        return [(name, table.iloc[:, i]) for i, name in enumerate(table.columns)]
    return [(name, table[name]) for name in getattr(table, "column_names", table.columns)]


def _sorted_out(values, is_one_of_several) -> tuple[str, np.ndarray]:
    """What is in a column, "numbers", "gaps", "text", "dates", "durations", ..., and its values."""
    if is_one_of_several and values.ndim > 1:
        return "arrays", values
    kind = {"M": "dates", "m": "durations", "U": "text", "S": "text"}.get(values.dtype.kind)
    if kind or values.dtype.kind != "O":
        gaps = values.dtype.kind == "f" and np.isnan(values).any()
        return kind or ("gaps" if gaps else "numbers"), values
    entries = [entry for entry in values.flat if not _is_gap(entry)]
    types = {_type(entry) for entry in entries}
    if types <= {"numbers"}:
        return ("gaps", values) if len(entries) < values.size else ("numbers", np.array(entries).reshape(values.shape))
    return (types.pop() if len(types) == 1 else "mixed types"), values


def _is_gap(entry) -> bool:
    if entry is None or type(entry).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(entry, numbers.Real) and entry != entry


def _type(entry) -> str:
    if isinstance(entry, str):
        return "text"
    if isinstance(entry, numbers.Complex | np.bool_) and not isinstance(entry, decimal.Decimal):
        return "numbers"
    if hasattr(entry, "total_seconds"):
        return "durations"
    if hasattr(entry, "__len__") and not isinstance(entry, bytes | dict):
        return "arrays"
    return "dates" if hasattr(entry, "toordinal") else type(entry).__name__


def _text(kind, what, frame, names) -> str:
    """What is wrong in these columns (None for that of a single one), and what to write instead."""
    library = type(frame).__module__.partition(".")[0]
    polars, what = library == "polars", f"{what}.to_pandas()" if library == "pyarrow" else what
    one = what if names is None else f"{what}[{names[0]!r}]"
    dummies = f"{what}.to_dummies({names})" if polars else f"pd.get_dummies({what}, columns={names})"
    number = "pl.Float64" if polars else "float"
    cast = f"{one}.cast({number})" if polars else f"{one}.astype({number})"
    own = f"{one}.map{'_elements(f, pl.Float64)' if polars else '(f)'}, with a function f that makes a float of each"
    since = f'{one}.dt.epoch("s")' if polars else f"with d = pd.to_datetime({one}), (d - d.min()).dt.total_seconds()"
    seconds = f"{one if polars else f'pd.to_timedelta({one})'}.dt.total_seconds()"
    filled = 'fill_nan(None).fill_null(strategy="mean")' if polars else "fillna(...)"
    dropped = "drop_nulls()" if polars else "dropna()"
    fixes = {
        "text": f"{dummies} makes a column of 0 and 1 for each value",
        "gaps": f"{what}.{filled} fills them, {dropped} of all the data leaves those rows out",
        "dates": f"{since} is a number",
        "durations": f"{seconds} is a number",
        "Decimal": cast,
        "mixed types": own if polars else f'pd.to_numeric({one}, errors="coerce") makes gaps of what is not a number',
        "arrays": f"np.stack({one}) is x itself, or one input of a dict",
    }
    if names is None and kind == "text":
        fixes["text"] = f"for labels that are text write np.unique({what}, return_inverse=True)[1]"
    place = "" if names is None else f" in the columns {names}"
    return f"{kind}{place} ({fixes.get(kind, own)})"
