"""`oea-server qualify`: whether a rule costs a model anything that its own answers show."""
