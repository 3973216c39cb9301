"""What a response is: matched with gold answers, recognised as a refusal, scored as correct, wrong or refused."""
