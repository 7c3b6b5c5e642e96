"""The drawing of sprites by subject: canvas and palettes, people, profiles, creatures, foods and spells."""
