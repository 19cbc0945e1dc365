from autodidact.cli import app
from autodidact.entry import entry_point

entry_point(app)
