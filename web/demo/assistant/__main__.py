"""`python -m web.demo.assistant`"""

import os

from models.settings import current
from web.demo.assistant.process import main

main(current(), os.environ)
