"""What every test runs under."""

from hope_serve.config import calm_threads

calm_threads()
