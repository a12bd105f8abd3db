"""Closed-class words of English object descriptions: the table that the parser works by.

Entries are lower case, words separated by single spaces; where several match, the longest wins. To teach the
parser a relation or a negation, add its words here and an example to the table in the tests.
"""

from __future__ import annotations

from matir_cli.search.phrases.description import RelationKind

RELATIONS: dict[RelationKind, tuple[str, ...]] = {
    RelationKind.LEFT_OF: (
        *("left of", "to the left of", "on the left of", "at the left of"),
        *("to the left side of", "on the left side of", "on the left hand side of", "left from"),
    ),
    RelationKind.RIGHT_OF: (
        *("right of", "to the right of", "on the right of", "at the right of"),
        *("to the right side of", "on the right side of", "on the right hand side of", "right from"),
    ),
    RelationKind.ABOVE: ("above", "over", "higher than", "up above"),
    RelationKind.BELOW: ("below", "under", "underneath", "beneath", "lower than"),
    RelationKind.INSIDE: ("inside", "inside of", "within", "contained in", "enclosed by", "surrounded by"),
    RelationKind.AROUND: ("around", "surrounding", "containing", "enclosing", "encircling"),
    RelationKind.NEAR: (
        *("next to", "right next to", "near", "near to", "close to", "beside", "alongside"),
        *("adjacent to", "against", "leaning against", "leaning on", "on top of", "atop", "tied to"),
        *("attached to", "chained to", "connected to", "in front of", "behind", "in back of", "followed by"),
        *("following", "facing", "touching", "at the side of", "by the side of", "parked by", "standing by"),
    ),
    RelationKind.ATTRIBUTE: (
        *("with", "having", "has", "have", "of", "in", "on", "at", "by", "from", "for", "full of"),
        *("filled with", "covered with", "covered in", "covered by", "decorated with", "topped with"),
        *(
            "wearing",
            "wear",
            "wears",
            "dressed in",
            "dressed as",
            "holding",
            "carrying",
            "pulling",
            "pushing",
            "riding",
        ),
        *("riding on", "sitting on", "sitting in", "sitting at", "standing on", "standing in", "lying on"),
        *("lying in", "walking on", "walking along", "hanging from", "hanging on", "leading", "led by"),
        *("held by", "pulled by", "pushed by", "driven by", "ridden by", "carried by", "worn by"),
        *("made of", "made from", "looking at", "pointing at", "talking to", "talking on", "using", "eating"),
        *("drinking", "drinking from", "reading", "playing", "playing with", "driving", "kicking"),
        *("throwing", "catching", "hitting", "chasing", "hugging", "cutting", "feeding", "walking", "taking"),
        *("between", "among", "amongst", "across from", "along", "through", "into", "onto", "out of"),
        *("towards", "toward", "whose", "being led by", "being held by", "being pulled by"),
        *("being carried by", "being ridden by"),
    ),
}
"""Words of each relation. What stands after an ATTRIBUTE belongs to the object's own text."""

ABSENCES = (
    *("without", "without any", "with no", "has no", "have no", "having no", "lacking", "free of"),
    *("but no", "but without", "but without any", "and no", "and without", "does not have", "doesn't have"),
    *("do not have", "don't have", "did not have", "missing", "no"),
)
"""Negations of something that the object could have; before a noun."""

NEGATIONS = (
    "not",
    "never",
    "isn't",
    "aren't",
    "wasn't",
    "but not",
    "and not",
    "none of them",
    "none of whom",
)
"""Negations of a property, an activity or a relation; before adjectives, participles and relations."""

NOBODY = {"with nobody": "somebody", "with no one": "somebody", "with nothing": "something"}
"""Pronouns that deny by themselves, and what they deny."""

RELATIVES = ("that", "which", "who")
"""Pronouns that begin a relative clause."""

COPULAS = (
    *("is", "are", "was", "were", "is located", "are located", "stands", "stand", "lies", "sits", "hangs"),
)
"""Verbs before a relation, a negation or a property, mostly after a relative pronoun."""

DETERMINERS = (
    *("a", "an", "the", "this", "these", "those", "some", "any", "another", "its", "his", "her"),
    *("their", "my", "your", "our"),
)
"""Words that begin a noun phrase and are not part of its text."""

COUNTS = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "several", "many"),
    *("multiple", "a few", "few", "a pair of", "pair of", "a couple of", "couple of", "both", "a lot of"),
    *(
        "lots of",
        "a number of",
        "at least one",
        "at least two",
        "more than one",
        "exactly one",
        "exactly two",
    ),
    *("2", "3", "4", "5", "6", "7", "8", "9", "10"),
)
"""Numbers and quantities; at the beginning of a noun phrase, also after a determiner."""

ACTIVITIES = (
    *("standing", "sitting", "running", "walking", "jumping", "flying", "swimming", "sleeping", "smiling"),
    *("laughing", "playing", "eating", "drinking", "grazing", "lying down", "lying", "laying", "kneeling"),
    *("crouching", "bending", "skiing", "surfing", "skating", "skateboarding", "waiting", "talking"),
    *("barking", "working", "cooking", "reading", "dancing", "singing", "yawning", "resting", "parked"),
    *("seated", "being held", "being eaten", "turned on", "turned off", "lit"),
)
"""Participles that may end a noun phrase; they belong to its text, but are not its noun."""

PLACES = (
    *("on the left", "on the right", "at the left", "at the right", "to the left", "to the right"),
    *("on the far left", "on the far right", "on far left", "on far right", "far left", "far right"),
    *("on left", "on right", "at the top", "at the bottom", "on the top", "on the bottom", "on top"),
    *("on bottom", "in the middle", "in the center", "in the centre", "in middle", "in center", "in centre"),
    *("in the background", "in the foreground", "in background", "in foreground", "in the back"),
    *("in the front", "in back", "in front", "in the corner", "in the distance", "on the left side"),
    *("on the right side", "at the top left", "at the top right", "at the bottom left"),
    *("at the bottom right", "in the top left", "in the top right", "in the bottom left"),
    *("in the bottom right", "in the top left corner", "in the top right corner"),
    *("in the bottom left corner", "in the bottom right corner", "at left", "at right"),
)
"""Places in the photo; at the end of a noun phrase."""

OF_THE_PHOTO = (
    *("of the photo", "of the picture", "of the image", "of photo", "of picture", "of image"),
    *("in the photo", "in the picture", "in the image", "of the frame", "of the screen"),
)
"""Words after a place that add nothing to it."""

OPENERS = (
    *("a photo of", "photo of", "photos of", "a picture of", "picture of", "pictures of", "an image of"),
    *("image of", "images of", "a photograph of", "photograph of", "a close up of", "a close-up of"),
    *("close-up of", "find", "find me", "show", "show me", "there is", "there are", "look for"),
    *("search for", "a shot of", "shot of", "a view of"),
)
"""Words before a description that describe no object."""

ADJECTIVES = frozenset(
    (
        *("black", "white", "red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "grey"),
        *("gray", "golden", "silver", "beige", "tan", "big", "small", "large", "little", "old", "new"),
        *("young", "tall", "short", "long", "wide", "narrow", "round", "square", "dirty", "clean", "wet"),
        *("dry", "open", "closed", "dark", "bright", "light", "striped", "plain", "spotted", "wooden"),
        *("rusty", "shiny", "broken", "full", "empty", "thin", "thick", "fluffy", "furry"),
    )
)
""""and" between two of these joins properties, not objects: "a black and white dog"."""

CONJUNCTIONS = ("and", "plus", "and also", "together with", "along with", "as well as")
"""Words between two objects that must both be in the photo."""

ALTERNATIVES = ("or", "and", "nor")
"""Words between several things that are denied by one negation."""

UNKNOWN = frozenset({"or", "either", "neither", "unless", "except", "if", "than", "each"})
"""Words whose meaning for the description is not modelled: a text that has one elsewhere stays whole."""
