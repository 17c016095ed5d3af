from xpander_magics.results import *  # noqa
from xpander_magics.results import _text, _seconds  # noqa
