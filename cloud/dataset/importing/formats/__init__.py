"""Readers of the formats that can be imported: folders, archives, lists, tables, annotations, videos."""
