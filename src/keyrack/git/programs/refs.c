/* Git's pre-receive hook: refuses a push of too many or too long references; decides nothing else.

   refs, with KEYRACK_MOST_REFS as the most that one push may name; each is a line "OLD NEW REF" on the input. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_REF = 255, LONGEST_LINE = 65536 };

int main(void) {
    static char line[LONGEST_LINE];
    const char *given = getenv("KEYRACK_MOST_REFS");
    long most = given == NULL ? 0 : atol(given);
    for (long count = 1; fgets(line, sizeof line, stdin) != NULL; count++) {
        char *ref = strrchr(line, ' ');
        size_t length = ref == NULL ? LONGEST_LINE : strcspn(ref + 1, "\n");
        if (count > most) {
            fprintf(stderr, "Keyrack: one push may name %ld branches and tags; push them in parts.\n", most);
            return 1;
        }
        /* A deletion's new object is all zeros. */
        const char *made = strchr(line, ' ');
        if (length > LONGEST_REF && !(made != NULL && strspn(made + 1, "0") >= 40)) {
            fprintf(stderr, "Keyrack: names of branches and tags have at most %d characters.\n", LONGEST_REF);
            return 1;
        }
    }
    return 0;
}
