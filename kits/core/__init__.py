"""Tools that every room needs and that know no CT: errors, labels, small files, locks, processes.

Any room may import it; it imports none.
"""
