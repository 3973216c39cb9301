def test_models_are_made_for_their_device(tiny):
    assert tiny.model.attention == "xla"
