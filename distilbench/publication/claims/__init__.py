"""What others say of speed and accuracy, held against runs: params/claims.yml, its verdicts, and their page."""
