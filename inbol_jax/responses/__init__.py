"""What a response is: a correct answer, a wrong answer, or a refusal."""
