"`python -m fsgen` and `accelerate launch -m fsgen`: the command line with all of its commands."

import fsgen.bench  # noqa: F401  registers the command bench
from fsgen.cli import main

if __name__ == "__main__":
    main()
