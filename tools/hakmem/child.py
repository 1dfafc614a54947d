"""A program as our child, for who looks on: it behaves as if it were in our place."""
import signal
import subprocess

from hakmem.options import Failed

# A terminal sends these to both of us; the program decides.
TERMINAL = (signal.SIGINT, signal.SIGQUIT)
PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def start(program, env, file=None):
    """A Popen, which gets the signals that we are sent; `file`: what is executed,
    where it is not the first word. Failed with status 126 or 127."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    children = []

    def begin():
        for number in (signal.SIGPIPE, signal.SIGXFSZ, *TERMINAL):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    for number in TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    for number in PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda got, _: [
                child.send_signal(got) for child in children])
    try:
        children.append(subprocess.Popen(program, executable=file, env=env,
                                         preexec_fn=begin))
    except OSError as error:
        status = 127 if isinstance(error, FileNotFoundError) else 126
        raise Failed(f"{program[0]}: can't be executed: {error.strerror}",
                     status) from None
    finally:
        # What came meanwhile is passed on now.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return children[0]


def status_of(child):
    """Waits for its end; the exit status, as a shell has it."""
    status = child.wait()
    return status if status >= 0 else 128 - status
