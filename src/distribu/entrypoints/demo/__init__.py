"""A demonstration: a company to look at (`company`), and real invoices to fill it with (`invoices`)."""
