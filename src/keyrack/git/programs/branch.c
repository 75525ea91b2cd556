/* Git's update hook: refuses a push to the one protected branch, and a tag of its name; decides nothing else.

   branch REF OLD NEW, with KEYRACK_PROTECTED naming a full ref, e.g. refs/heads/main. Where a tag has the name of a
   branch, `git fetch origin main` gets the tag, whoever made it, and before both it gets refs/main (which git takes
   where the name has a slash in it: refs/release/1). One that is there may be deleted. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char heads[] = "refs/heads/", tags[] = "refs/tags/", refs[] = "refs/";

/* Whether a ref is the name behind a prefix. */
static int is(const char *ref, const char *prefix, const char *name) {
    size_t length = strlen(prefix);
    return strncmp(ref, prefix, length) == 0 && strcmp(ref + length, name) == 0;
}

int main(int count, char **arguments) {
    const char *guarded = getenv("KEYRACK_PROTECTED");
    if (count < 2 || guarded == NULL)
        return 0;
    const char *ref = arguments[1], *new = count > 3 ? arguments[3] : "";
    if (strcmp(ref, guarded) == 0) {
        fputs("Keyrack: this branch is protected; push to another one, or ask an admin of the repository.\n", stderr);
        return 1;
    }
    const char *name = guarded + sizeof heads - 1;
    if (strncmp(guarded, heads, sizeof heads - 1) == 0 && (is(ref, tags, name) || is(ref, refs, name)) &&
        new[strspn(new, "0")] != '\0') {
        fputs("Keyrack: this would be fetched in place of the protected branch, as it has its name; choose another "
              "name.\n",
              stderr);
        return 1;
    }
    return 0;
}
