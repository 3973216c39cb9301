"""The embedded VQA world and its tiny vision-language model: InBoL end to end without a download."""
