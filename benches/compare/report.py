"""Figures of all rounds → medians, goals met or not, as a table and as JSON."""

import json
import statistics

MET, MISSED = "met", "MISSED"


class Report:
    """All figures by name, a value a round, and what failed."""

    def __init__(self, rows, machine, is_quick):
        self.rows = rows
        self.machine = machine
        self.is_quick = is_quick
        self.figures = {}
        self.failures = {}

    def add(self, figures):
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)

    def failed(self, measure, why):
        self.failures.setdefault(measure.__name__, []).append(str(why))

    def median(self, name):
        values = self.figures.get(name)
        return statistics.median(values) if values else None

    def verdict(self, row, goal):
        """Whether a goal is met, or why that is not known, which counts as not met."""
        value = self.median(goal.figure)
        if value is None:
            why = self.failures.get(row.measure.__name__, ["it was not measured"])
            return f"FAILED: {why[-1]}"
        if self.failures.get(row.measure.__name__):
            return f"FAILED in some rounds: {self.failures[row.measure.__name__][-1]}"
        if self.is_quick and goal.needs_size:
            return "not judged at this size"
        return MET if goal.is_met(value) else MISSED

    def are_all_met(self):
        return all(self.verdict(row, goal) == MET for row in self.rows for goal in row.goals)

    def text(self):
        lines = [" ".join(f"{name}={value}" for name, value in self.machine.items()), ""]
        lines += ["| what | median | lowest–highest | goal | |", "| --- | --- | --- | --- | --- |"]
        for row in self.rows:
            lines.append(f"| **{row.name}** | | | | |")
            for goal in row.goals:
                verdict = self.verdict(row, goal).replace("|", "/")
                lines.append(self._line(goal.figure, goal.what, goal.bound(), verdict))
            failed = self.failures.get(row.measure.__name__)
            for name, what in row.figures.items():
                why = "" if row.goals or not failed else f"FAILED: {failed[-1]}".replace("|", "/")
                lines.append(self._line(name, what, "", why))
        lines.append("")
        lines += [f"- {row.name}: {row.note}." for row in self.rows if row.note]
        verdicts = [self.verdict(row, goal) for row in self.rows for goal in row.goals]
        met = verdicts.count(MET)
        missed = verdicts.count(MISSED)
        lines += ["", f"{met} of {len(verdicts)} goals met, {missed} missed, "
                      f"{len(verdicts) - met - missed} not known"]  # fmt: skip
        return "\n".join(lines)

    def _line(self, name, what, bound, verdict):
        values = self.figures.get(name)
        if not values:
            return f"| {what} | – | – | {bound} | {verdict} |"
        middle = _short(statistics.median(values))
        span = f"{_short(min(values))}–{_short(max(values))}" if len(values) > 1 else ""
        return f"| {what} | {middle} | {span} | {bound} | {verdict} |"

    def json(self):
        def goal_json(row, goal):
            return {
                "what": goal.what,
                "figure": goal.figure,
                "bound": goal.bound(),
                "median": self.median(goal.figure),
                "verdict": self.verdict(row, goal),
            }

        rows = [
            {
                "name": row.name,
                "goals": [goal_json(row, goal) for goal in row.goals],
                "figures": {name: what for name, what in row.figures.items()},
                "note": row.note,
            }
            for row in self.rows
        ]
        everything = {
            "machine": self.machine,
            "quick": self.is_quick,
            "rows": rows,
            "rounds": self.figures,
            "failures": self.failures,
        }
        return json.dumps(everything, indent=1, ensure_ascii=False)


def _short(value):
    """Three digits of a figure, thousands apart."""
    if value == 0:
        return "0"
    if abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
