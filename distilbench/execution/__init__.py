"""How a study gets executed: notebooks, batch jobs, what is handed on afterwards."""
