"""The program that runs on other people's hosts; imports only the standard library and keyrack.ssh, Python 3.9."""
