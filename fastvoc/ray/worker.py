"""The actor of a job: loads the model once, and does the work for one block of rows after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fastvoc.errors import ArgumentError, FastvocError
from fastvoc.ray.batches import batches
from fastvoc.ray.columns import rows, whole
from fastvoc.ray.output import Output
from fastvoc.ray.report import Report
from fastvoc.ray.work import Item, Work
from fastvoc.runtime.threads import set_num_threads

if TYPE_CHECKING:
    import pyarrow as pa


class Worker:
    """Tables of rows in, tables of the same rows with what was made of them out, or of a block's counts.

    threads: CPU threads of the model. frames: the most of a batch, with its padding. output: where the rows are
    written; None gives them back. written: ids in it, of an earlier job.
    """

    def __init__(self, work: Work, threads: int, frames: int, output: Output | None, written: pa.Array | None) -> None:
        set_num_threads(threads)
        self.work, self.frames, self.output, self.written = work, frames, output, written
        if output is not None:
            output.check()
        work.load()

    def __call__(self, table: pa.Table) -> pa.Table:
        if self.output is None:
            made, errors, warnings = self._make(table, [None] * table.num_rows)
            return self._table(table, made, errors, warnings)
        return self._write(table, self.output)

    def _write(self, table: pa.Table, output: Output) -> pa.Table:
        import pyarrow as pa

        report = Report()
        there = output.there(table.column(output.key), self.written)
        report.there = sum(there)
        table = table.filter(pa.array([not one for one in there], pa.bool_()))
        ids, problems = _ids(table.column(output.key).to_pylist(), output)
        made, errors, warnings = self._make(table, problems)
        for i, values in enumerate(made):
            if values is not None and (problem := _saved(output, ids[i], values)) is not None:
                made[i], errors[i] = None, problem
        results = self._table(table, made, errors, warnings)
        good = pa.array([error is None for error in errors], pa.bool_())
        bad = pa.array([error is not None for error in errors], pa.bool_())
        lost = results.filter(bad).drop_columns([name for name, _ in self.work.fields()])
        output.write(results.filter(good).drop_columns(["error"]), lost, table)
        report.written = sum(error is None for error in errors)
        report.seconds = sum(self.work.duration(values) for values in made if values is not None)
        failed = [(name, error) for name, error in zip(ids, errors, strict=True) if error is not None]
        warned = [(name, text) for name, text in zip(ids, warnings, strict=True) if text is not None]
        return report.table(failed, warned, [name for name, error in zip(ids, errors, strict=True) if error is None])

    def _make(
        self, table: pa.Table, problems: Sequence[str | None]
    ) -> tuple[list[dict[str, object] | None], list[str | None], list[str | None]]:
        """What was made of each row, or its error, and its warning; rows that have a problem are not looked at."""
        columns = {name: rows(table.column(name)) for name in self.work.columns}
        errors = list(problems)
        made: list[dict[str, object] | None] = [None] * table.num_rows
        items: dict[int, Item] = {}
        for i in range(table.num_rows):
            if errors[i] is None:
                try:
                    items[i] = self.work.item({name: column[i] for name, column in columns.items()})
                except FastvocError as error:
                    errors[i] = _told(error)
        places = list(items)
        lengths, kinds = [items[i].length for i in places], [items[i].kind for i in places]
        for batch in batches(lengths, self.frames, kinds):
            own = [places[i] for i in batch]
            for i, found in zip(own, self._run([items[i] for i in own]), strict=True):
                if isinstance(found, str):
                    errors[i] = found
                else:
                    made[i] = found
        warnings = [items[i].warning if i in items else None for i in range(table.num_rows)]
        return made, errors, warnings

    def _run(self, items: Sequence[Item]) -> Sequence[dict[str, object] | str]:
        """Values or an error for each item: where a batch fails, its items are tried one by one."""
        try:
            return self.work.run(items)
        except (FastvocError, RuntimeError, MemoryError) as error:
            if len(items) == 1:
                return [_told(error)]
        return [self._run([item])[0] for item in items]

    def _table(
        self,
        table: pa.Table,
        made: Sequence[dict[str, object] | None],
        errors: Sequence[str | None],
        warnings: Sequence[str | None],
    ) -> pa.Table:
        """The rows without the column that was read, with what was made, null where nothing was."""
        import pyarrow as pa

        columns: list[tuple[str, pa.Array]] = []
        for name, kind in self.work.fields():
            columns.append((name, pa.array([None if row is None else row[name] for row in made], kind)))
        columns += [("error", pa.array(errors, pa.string())), ("warning", pa.array(warnings, pa.string()))]
        new = {name for name, _ in columns}
        table = table.drop_columns([name for name in table.column_names if name in new or name == self.work.column])
        for name, values in columns:
            table = table.append_column(name, values)
        return table


def _ids(values: Sequence[object], output: Output) -> tuple[list[str], list[str | None]]:
    """Ids as texts, and what is wrong with each."""
    seen: set[str] = set()
    ids: list[str] = []
    problems: list[str | None] = []
    for value in values:
        problem = None
        try:
            name = output.check_id(value)
            if name in seen:
                raise ArgumentError(f"{output.key}: {name!r} comes twice")
            seen.add(name)
        except FastvocError as error:
            name, problem = str(value), _told(error)
        ids.append(name)
        problems.append(problem)
    return ids, problems


def _saved(output: Output, name: str, values: Mapping[str, object]) -> str | None:
    """Writes the audio file of a row, where the rows are audio files, or says why it could not."""
    if output.format == "parquet":
        return None
    try:
        output.sound(name, values["wav"], whole(values["sample_rate"], "sample_rate"))
    except ArgumentError as error:
        return _told(error)
    return None


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
