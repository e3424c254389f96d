import subprocess
import sys

HEAVY = ("torch", "vllm", "transformers", "lm_eval", "datasets", "matplotlib")


def _run(code, tmp_path):
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_definitions_import_nothing_heavy(tmp_path):
    loaded = _run(f"import sys, instpt_assets.definitions; print([m for m in {HEAVY} if m in sys.modules])", tmp_path)

    assert loaded.strip() == "[]"


def test_definitions_load_in_under_four_seconds_of_processor_time(tmp_path):
    _run("import instpt_assets.definitions", tmp_path)  # writes the project's own byte code

    # Processor time: what else the machine does is no fault of the definitions.
    seconds = float(_run("import time, instpt_assets.definitions; print(time.process_time())", tmp_path))

    assert seconds < 4
