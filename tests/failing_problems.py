"""Problems whose oracles kill their worker, raise, or cannot be sent: what engines must survive, or name."""

import os
import signal
import threading

import tardigrad as td


class Murderous(td.Problem):
    """Kills its own process now and then, but never twice in the same task."""

    n_clients, dim = 4, 3

    def __init__(self, folder, kill_every, shared=False):
        self.folder, self.kill_every, self.shared_data = str(folder), kill_every, shared

    def fields(self):
        return {"folder": self.folder, "kill_every": self.kill_every, "shared": self.shared_data}

    def sample(self, client, rng):
        return int(rng.integers(2**62))

    def gradient(self, client, x, sample=None):
        if self.kill_every and sample % self.kill_every == 0 and self.first_time(str(sample)):
            os.kill(os.getpid(), signal.SIGKILL)
        return x - client + 1e-3 * (sample % 7)

    def first_time(self, what):
        """Whether this is said for the first time, by any process."""
        try:
            open(os.path.join(self.folder, what), "x").close()
        except FileExistsError:
            return False
        return True


class DiesOnce(Murderous):
    """Kills its process in the first task it sees, once."""

    def gradient(self, client, x, sample=None):
        if self.first_time("died"):
            os.kill(os.getpid(), signal.SIGKILL)
        return x - client


class Poisonous(td.Problem):
    n_clients, dim = 2, 2

    def fields(self):
        return {}

    def gradient(self, client, x, sample=None):
        os._exit(3)


class Raising(td.Problem):
    n_clients, dim = 2, 2

    def fields(self):
        return {}

    def gradient(self, client, x, sample=None):
        return x / [][client]


class Deadly(Raising):
    def __init__(self):
        self.state = 1

    def __setstate__(self, state):
        os._exit(7)


class Unpicklable(Raising):
    def __init__(self):
        self.lock = threading.Lock()


class Unloadable(Raising):
    def __reduce__(self):
        return eval, ("1 / 0",)
