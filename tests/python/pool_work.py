"""What the workers of test_processes.py's pools do."""
import hakmem_py
from churn import churn


def work(number):
    """Returns the number, and whether this process is on HAKMEM."""
    churn(100)
    return number, hakmem_py.enabled
