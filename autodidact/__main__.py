from autodidact.commands.app import app
from autodidact.commands.entry import entry_point

entry_point(app)
