/* Answers sshd's AuthorizedKeysCommand: asks the service for the line of a fingerprint; decides nothing.

   lookup SOCKET FINGERPRINT
   Prints the key line and ends with 0, prints nothing and ends with 0 when the key is unknown, and ends with 1,
   so that sshd drops whatever was printed, when the service does not answer. */

#include <stdio.h>

#include "service.h"

enum { ANSWER_SECONDS = 10, LONGEST_FINGERPRINT = 128 };

int main(int count, char **arguments) {
    static char frame[4 + 8 + LONGEST_FINGERPRINT], answer[LARGEST];
    if (count != 3 || strlen(arguments[2]) > LONGEST_FINGERPRINT)
        return 1;
    int service = connect_to(arguments[1], ANSWER_SECONDS);
    if (service < 0)
        return 1;
    size_t end = add_field(frame, 4, "line", 4);
    end = add_field(frame, end, arguments[2], LONGEST_FINGERPRINT);
    if (send_frame(service, frame, end) != 0)
        return 1;
    size_t length = receive_frame(service, answer);
    if (length == 0)
        return 1;
    if (strcmp(answer, "none") == 0)
        return 0;
    if (strcmp(answer, "line") != 0 || length < 6)
        return 1;
    const char *line = answer + 5;
    /* Whatever the service answered, sshd gets one line only. */
    if (strpbrk(line, "\r\n") != NULL || puts(line) == EOF || fflush(stdout) != 0)
        return 1;
    return 0;
}
