"""Commands that people serve MoE models with, what `doctor --on` says of each, and the page that
says so.

`recipes.json` stands for public benchmark recipes (InferenceX, August 2026), `cookbook.json` for
SGLang's own documentation; in both, what cannot matter to routing is left out, and a recipe without
a GPU's name has one assumed. `families.json` is 30 well-known families, each as its authors publish
it. `configs/` is their config.json as far as SGLang's argument resolution and its model classes
read them, from public model cards and SGLang's own configuration classes: a detail may differ, and
whose code is the model's own (MiMo, Step) is written in terms of SGLang's. That of GLM-4.6-FP8 is
quantised by channel: in blocks of 128 no SGLang would load it on 8 ranks, as its documentation
does."""
