"""`python -m web.demo.assistant`"""

import os
import sys

from models.errors import BlotterError
from models.settings import current
from web.demo.assistant.process import main

try:
    main(current(), os.environ)
except BlotterError as error:
    sys.exit(f"Error: {error}")
