"""SGLang's releases from their wheels: the patch series held to them, or made for a new one."""
