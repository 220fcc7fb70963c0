"""The error tree.

PinsageError          everything this program raises on purpose
├── UserError         the user's input or settings are at fault: the command line exits with 2
│   └── DatasetError  a data set cannot be read; the message names file, row and column
├── ReleaseError      a release is missing, damaged or of another format; the message names the file
└── IndexDamaged      an ANN index does not match its description; rebuild it from the vectors
"""


class PinsageError(Exception):
    """Base of all errors raised on purpose."""


class UserError(PinsageError):
    """The user's input or settings are at fault."""


class DatasetError(UserError):
    """A data set cannot be read as it is."""


class ReleaseError(PinsageError):
    """A release is missing, damaged or of another format."""


class IndexDamaged(PinsageError):
    """An ANN index does not match its description."""
