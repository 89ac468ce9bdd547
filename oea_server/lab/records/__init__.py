"""What every measurement needs: its machine and versions, tables, pictures, statistics, a command
line's numbers."""
