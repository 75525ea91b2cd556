/* Git's update hook: refuses a push to the one protected branch; decides nothing else.

   branch REF OLD NEW, with KEYRACK_PROTECTED naming a full ref, e.g. refs/heads/main. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int count, char **arguments) {
    const char *guarded = getenv("KEYRACK_PROTECTED");
    if (count > 1 && guarded != NULL && strcmp(arguments[1], guarded) == 0) {
        fputs("Keyrack: this branch is protected; push to another one, or ask an admin of the repository.\n", stderr);
        return 1;
    }
    return 0;
}
