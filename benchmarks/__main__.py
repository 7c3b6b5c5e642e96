"""`make bench`: every benchmark one after the other, for two at once would slow each other down."""

import subprocess
import sys

SUBJECTS = (
    "start_up",
    "data",
    "drawing",
    "loop",
    "networks",
    "text_to_image",
    "sampling",
    "memory",
    "predictions",
    "trackers",
    "lora",
)

if __name__ == "__main__":
    for subject in sys.argv[1:] or SUBJECTS:
        print(f"== {subject}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{subject}"], check=True)
