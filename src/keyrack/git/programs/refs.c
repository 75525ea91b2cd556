/* Git's pre-receive hook: refuses a push of too many or too long references; decides nothing else. It tells the
   service which are to change, and as the post-receive hook which have changed, for the log alone: a service that
   does not answer keeps no push waiting for long.

   refs, with KEYRACK_MAX_REFS as the most that one push may name; each is a line "OLD NEW REF" on the input.
   KEYRACK_SOCKET and KEYRACK_OPERATION: whom to tell, and of which push. */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "service.h"

enum { LONGEST_REF = 255, LONGEST_LINE = 65536, LONGEST_REPORT = 48000, LONGEST_NAME = 200, ANSWER_SECONDS = 5 };

/* The lines for the service, as many whole ones as there is room for; the last byte stays NUL. */
static char lines[LONGEST_REPORT];
static size_t lines_length;

static void keep(const char *line) {
    size_t length = strlen(line);
    if (lines_length + length < sizeof lines) {
        memcpy(lines + lines_length, line, length);
        lines_length += length;
    }
}

/* Sends the service: refs OPERATION STATE COUNT LINES. */
static void report(const char *state, long count) {
    static char frame[4 + LONGEST_REPORT + 1024];
    const char *path = getenv("KEYRACK_SOCKET"), *operation = getenv("KEYRACK_OPERATION");
    if (count == 0 || path == NULL || operation == NULL)
        return;
    int service = connect_to(path, ANSWER_SECONDS);
    if (service < 0)
        return;
    char number[32];
    snprintf(number, sizeof number, "%ld", count);
    size_t end = add_field(frame, 4, "refs", 4);
    end = add_field(frame, end, operation, LONGEST_NAME);
    end = add_field(frame, end, state, strlen(state));
    end = add_field(frame, end, number, strlen(number));
    end = add_field(frame, end, lines, lines_length);
    if (send_frame(service, frame, end) == 0) {
        /* The answer is waited for, so that the service has noted it before git goes on and the push ends. */
        char answer;
        while (read(service, &answer, 1) == 1)
            ;
    }
    close(service);
}

int main(int arguments, char **argument) {
    static char line[LONGEST_LINE];
    const char *given = getenv("KEYRACK_MAX_REFS");
    const char *name = arguments > 0 ? strrchr(argument[0], '/') : NULL;
    int done = name != NULL && strcmp(name, "/post-receive") == 0;
    long most = given == NULL ? 0 : atol(given), count = 0;
    signal(SIGPIPE, SIG_IGN);
    while (fgets(line, sizeof line, stdin) != NULL) {
        char *ref = strrchr(line, ' ');
        size_t length = ref == NULL ? LONGEST_LINE : strcspn(ref + 1, "\n");
        count++;
        keep(line);
        if (done)
            continue;
        if (count > most) {
            report("wanted", count);
            fprintf(stderr, "Keyrack: one push may name %ld branches and tags; push them in parts.\n", most);
            return 1;
        }
        /* A deletion's new object is all zeros. */
        const char *made = strchr(line, ' ');
        if (length > LONGEST_REF && !(made != NULL && strspn(made + 1, "0") >= 40)) {
            report("wanted", count);
            fprintf(stderr, "Keyrack: names of branches and tags have at most %d characters.\n", LONGEST_REF);
            return 1;
        }
    }
    report(done ? "changed" : "wanted", count);
    return 0;
}
