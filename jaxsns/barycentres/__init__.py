"""Barycentres of measures: on a fixed support and with a free one."""

__all__: list[str] = []
