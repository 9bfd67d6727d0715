"""The entry that the image runs. RunPod's Hub looks for a file of this name.

Every job enters at `infinity_worker.handler.async_handler`.
"""

import sys

from infinity_worker.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
