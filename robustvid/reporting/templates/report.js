startPlayers(document);
