/* Git's pre-receive hook: refuses a push of too many or too long references; decides nothing else. It tells the
   service which are to change, and as the post-receive hook which have changed, for the log alone: a service that
   does not answer keeps no push waiting for long.

   refs, with KEYRACK_MAX_REFS as the most that one push may name; each is a line "OLD NEW REF" on the input.
   KEYRACK_SOCKET and KEYRACK_OPERATION: whom to tell, and of which push. */

#include <arpa/inet.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { LONGEST_REF = 255, LONGEST_LINE = 65536, LONGEST_TOLD = 48000, LONGEST_NAME = 200, ANSWER_SECONDS = 5 };

static char told[LONGEST_TOLD];
static size_t told_length;

static void keep(const char *line) {
    size_t length = strlen(line);
    if (told_length + length < sizeof told) {
        memcpy(told + told_length, line, length);
        told_length += length;
    }
}

static size_t add_field(char *frame, size_t at, const char *value, size_t length) {
    memcpy(frame + at, value, length);
    frame[at + length] = 0;
    return at + length + 1;
}

static int connect_to(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = ANSWER_SECONDS};
    if (strlen(path) >= sizeof address.sun_path)
        return -1;
    strcpy(address.sun_path, path);
    int service = socket(AF_UNIX, SOCK_STREAM, 0);
    if (service < 0)
        return -1;
    setsockopt(service, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(service, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(service, (struct sockaddr *)&address, sizeof address) != 0) {
        close(service);
        return -1;
    }
    return service;
}

/* Four bytes of length, then fields that each end with a NUL: refs OPERATION STATE COUNT LINES. */
static void tell(const char *state, long count) {
    static char frame[4 + LONGEST_TOLD + 1024];
    const char *path = getenv("KEYRACK_SOCKET"), *operation = getenv("KEYRACK_OPERATION");
    if (count == 0 || path == NULL || operation == NULL)
        return;
    int service = connect_to(path);
    if (service < 0)
        return;
    char number[32];
    snprintf(number, sizeof number, "%ld", count);
    size_t at = add_field(frame, 4, "refs", 4);
    at = add_field(frame, at, operation, strnlen(operation, LONGEST_NAME));
    at = add_field(frame, at, state, strlen(state));
    at = add_field(frame, at, number, strlen(number));
    at = add_field(frame, at, told, told_length);
    uint32_t length = htonl((uint32_t)(at - 4));
    memcpy(frame, &length, 4);
    for (size_t sent = 0; sent < at;) {
        ssize_t now = write(service, frame + sent, at - sent);
        if (now <= 0)
            break;
        sent += (size_t)now;
    }
    /* Noted before git goes on, and so before the push has ended. */
    char answer;
    while (read(service, &answer, 1) == 1)
        ;
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
            tell("wanted", count);
            fprintf(stderr, "Keyrack: one push may name %ld branches and tags; push them in parts.\n", most);
            return 1;
        }
        /* A deletion's new object is all zeros. */
        const char *made = strchr(line, ' ');
        if (length > LONGEST_REF && !(made != NULL && strspn(made + 1, "0") >= 40)) {
            tell("wanted", count);
            fprintf(stderr, "Keyrack: names of branches and tags have at most %d characters.\n", LONGEST_REF);
            return 1;
        }
    }
    tell(done ? "changed" : "wanted", count);
    return 0;
}
